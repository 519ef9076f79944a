"""Memory of slabs: used again once nobody sees it, never before."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from skyset.loading import memory
from skyset.loading.memory import Reused, carve


def test_a_block_is_used_again_once_no_array_is_a_part_of_it():
    blocks = Reused()
    first = carve(blocks, {"a": ("f4", (3, 5)), "b": ("i8", (7,))})
    at = first["a"].ctypes.data
    row = first["a"][1].T[2:]
    del first
    second = blocks(120)
    assert second.ctypes.data != at, "a row of it is still there"
    del row
    third = blocks(120)
    assert third.ctypes.data == at
    assert blocks(110).ctypes.data not in (at, second.ctypes.data)


def test_values_stay_while_somebody_holds_them():
    blocks, held = Reused(), []
    dice = np.random.default_rng(2)
    for number in range(60):
        array = carve(blocks, {"x": ("i8", (int(dice.integers(1, 40)),))})["x"]
        array[:] = number
        held.append((number, array[len(array) // 2 :]))
        if number % 3 == 2:
            held.pop(int(dice.integers(len(held))))
        assert all((values == wanted).all() for wanted, values in held)


def test_a_smaller_slab_takes_what_is_there_and_a_larger_one_its_place():
    blocks = Reused()
    at = blocks(200).ctypes.data
    assert blocks(80).ctypes.data == at and blocks(80).shape == (80,)
    blocks(1000)
    assert [len(store) for store, _ in blocks._kept.values()] == [1000]


def test_few_blocks_are_kept_and_no_large_ones(monkeypatch):
    monkeypatch.setattr(memory, "_LARGEST", 500)
    blocks = Reused()
    held = [blocks(100) for _ in range(9)]
    assert len(blocks._kept) == 3 and len({block.ctypes.data for block in held}) == 9
    assert blocks(501).shape == (501,) and len(blocks._kept) == 3


def test_threads_do_not_get_the_same_block():
    blocks = Reused()

    def work(number):
        for _ in range(300):
            block = blocks(64)
            block[:] = number
            time.sleep(0)
            assert (block == number).all()
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_a_block_may_be_empty():
    assert carve(Reused(), {}) == {} and carve(Reused(), {"a": ("f4", (0, 3))})["a"].shape == (0, 3)


def test_arrays_are_aligned_and_do_not_overlap():
    made = carve(Reused(), {"a": ("S3", (5,)), "b": ("f8", (4,)), "c": ("u1", (1,)), "d": ("f4", (2, 2))})
    for number, array in enumerate(made.values()):
        array[...] = number
    assert all((array.astype(float) == number).all() for number, array in enumerate(made.values()))
    assert all((array.ctypes.data - made["a"].ctypes.data) % 64 == 0 for array in made.values())
