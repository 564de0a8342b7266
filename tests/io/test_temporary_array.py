import gc
import os
import pickle

import numpy as np
import pytest

from jwstdask.io.temporary import FileArray


@pytest.mark.parametrize("filed", [True, False])
def test_pieces_are_written_where_they_belong(tmp_path, filed):
    array = FileArray(tmp_path / "new" if filed else None, (2, 3, 5, 4))
    expected = np.zeros((2, 3, 5, 4), np.float32)
    values = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    array.write((1, 2), values)
    array.write((0, 1, 3), values[:2])
    array.array[0, 0, 0, 0] = 7
    expected[1, 2], expected[0, 1, 3:5], expected[0, 0, 0, 0] = values, values[:2], 7
    np.testing.assert_array_equal(array.array, expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(array)).array, expected)


def test_file_lives_as_long_as_the_object_that_made_it(tmp_path):
    array = FileArray(tmp_path, (4, 4), np.uint8)
    path = array.path
    assert os.path.getsize(path) == 16
    small = pickle.dumps(array)
    assert len(small) < 500
    copy = pickle.loads(small)
    assert copy.array.shape == (4, 4)
    with pytest.raises(ValueError, match="read-only"):
        copy.array[0, 0] = 1
    del copy
    gc.collect()
    assert os.path.exists(path)
    del array
    gc.collect()
    assert not os.path.exists(path)


@pytest.mark.parametrize("filed", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_boxes(tmp_path, filed, seed):
    """Parts written from a copy that travelled are seen where the array was made."""
    rng = np.random.default_rng(seed)
    array = FileArray(tmp_path if filed else None, (11, 9), np.float64)
    other = pickle.loads(pickle.dumps(array)) if filed else array
    expected = np.zeros((11, 9))
    for _ in range(6):
        y0, x0 = int(rng.integers(0, 11)), int(rng.integers(0, 9))
        y1, x1 = int(rng.integers(y0, 12)), int(rng.integers(x0, 10))
        # Not contiguous, as inner parts of blocks are.
        values = rng.normal(size=(11, 20))[: y1 - y0, : 2 * (x1 - x0) : 2]
        other.write_box(slice(y0, y1), slice(x0, x1), values)
        expected[y0:y1, x0:x1] = values
    np.testing.assert_array_equal(array.array, expected)
