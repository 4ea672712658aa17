"""Merkle trees, held against RFC 6962's definition and Certificate Transparency's published test vectors."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audit.merkle import (
    EMPTY_ROOT,
    RightEdge,
    consistency_path,
    inclusion_path,
    is_consistent,
    root_from_path,
    root_of,
)

# The eight leaves, and the roots over the first n of them, of Certificate Transparency's reference tests.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def by_definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + by_definition(leaves[:k]) + by_definition(leaves[k:])).digest()


def leaves(n: int) -> list[bytes]:
    return [i.to_bytes(4, "big") for i in range(n)]


@pytest.mark.parametrize("n", range(1, 9))
def test_published_roots(n: int) -> None:
    assert root_of(LEAVES[:n]).hex() == ROOTS[n - 1]


def test_empty() -> None:
    assert root_of([]) == EMPTY_ROOT == by_definition([])


@pytest.mark.parametrize("n", [*range(1, 20), 31, 32, 33, 64, 100])
def test_every_proof_leads_to_the_root(n: int) -> None:
    tree = leaves(n)
    root = root_of(tree)
    assert root == by_definition(tree)
    for index in range(n):
        path = inclusion_path(tree, index)
        assert root_from_path(tree[index], index, n, path) == root
        assert root_from_path(b"other", index, n, path) != root
        assert root_from_path(tree[index], index, n, [*path, bytes(32)]) != root
        if path:
            assert root_from_path(tree[index], index, n, path[:-1]) != root
            assert root_from_path(tree[index], index, n, [bytes(32), *path[1:]]) != root


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 8, 13, 33])
def test_every_older_tree_is_consistent_and_no_other(n: int) -> None:
    tree = leaves(n)
    root = root_of(tree)
    for old in range(1, n + 1):
        path = consistency_path(tree, old)
        before = root_of(tree[:old])
        assert is_consistent(old, before, n, root, path)
        assert not is_consistent(old, root_of([b"x", *tree[1:old]]), n, root, path)
        assert not is_consistent(old, before, n, root_of([*tree[:-1], b"x"]), path)
        assert not is_consistent(old, before, n, root, [*path, bytes(32)])


@given(st.integers(0, 200), st.integers(0, 200))
def test_an_edge_goes_on_where_it_was_left(first: int, more: int) -> None:
    tree = leaves(first + more)
    edge = RightEdge()
    for data in tree[:first]:
        edge.append(data)
    resumed = RightEdge(edge.size, edge.peaks)
    for data in tree[first:]:
        resumed.append(data)
    assert resumed.root() == root_of(tree)


def test_peaks_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="subtrees"):
        RightEdge(3, [bytes(32)])


@pytest.mark.parametrize("index", [-1, 3])
def test_no_such_leaf(index: int) -> None:
    with pytest.raises(IndexError):
        inclusion_path(leaves(3), index)
    assert root_from_path(b"", index, 3, []) is None


@pytest.mark.parametrize("old", [0, 4])
def test_no_such_older_tree(old: int) -> None:
    with pytest.raises(IndexError):
        consistency_path(leaves(3), old)
    assert not is_consistent(old, bytes(32), 3, bytes(32), [])
