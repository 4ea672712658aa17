"""Merkle trees over the audit log as RFC 6962 (and RFC 9162, section 2.1) has them.

A leaf is `SHA-256(0x00 | data)`, a node `SHA-256(0x01 | left | right)`; a tree of n leaves has as its left
half the largest power of two below n. The data of leaf i are the 32 bytes of the hash of the event with the
number i + 1.
"""

import hashlib
from collections.abc import Iterable, Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\1" + left + right).digest()


class RightEdge:
    """A growing tree of which only the roots of its full subtrees are kept: log2(n) hashes for n leaves.

    Args:
        size: how many leaves it has.
        peaks: roots of the full subtrees, the largest first: one for each bit that is set in `size`.

    Raises:
        ValueError: `peaks` does not fit `size`.
    """

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self.peaks = list(peaks)
        if len(self.peaks) != size.bit_count():
            raise ValueError(f"{len(self.peaks)} subtrees cannot make a tree of {size} leaves")

    def append(self, data: bytes) -> None:
        """Add a leaf."""
        node, size = leaf_hash(data), self.size
        while size & 1:
            node = node_hash(self.peaks.pop(), node)
            size >>= 1
        self.peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Return the root of the tree as it is."""
        if not self.peaks:
            return EMPTY_ROOT
        node = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            node = node_hash(peak, node)
        return node


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Return the root over the leaves' data."""
    edge = RightEdge()
    for data in leaves:
        edge.append(data)
    return edge.root()


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the audit path of leaf `index`, from the bottom up (RFC 6962, section 2.1.1).

    Args:
        leaves: the data of every leaf.
        index: from 0.

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of {len(leaves)}")
    path: list[bytes] = []
    start, end = 0, len(leaves)
    while end - start > 1:
        middle = start + _left(end - start)
        if index < middle:
            path.append(root_of(leaves[middle:end]))
            end = middle
        else:
            path.append(root_of(leaves[start:middle]))
            start = middle
    return path[::-1]


def root_from_path(data: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that an audit path leads to (RFC 9162, section 2.1.3.2); None if its length is wrong.

    Args:
        data: of the leaf.
        index: of the leaf, from 0.
        size: of the tree.
        path: from the bottom up.
    """
    if not 0 <= index < size:
        return None
    node, last = leaf_hash(data), size - 1
    for sibling in path:
        if last == 0:
            return None
        if index & 1 or index == last:
            node = node_hash(sibling, node)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        index, last = index >> 1, last >> 1
    return node if last == 0 else None


def consistency_path(leaves: Sequence[bytes], old: int) -> list[bytes]:
    """Return the proof that the tree of `leaves` extends that of its first `old` (RFC 6962, section 2.1.2).

    Raises:
        IndexError: `old` is not between 1 and the number of leaves.
    """
    if not 0 < old <= len(leaves):
        raise IndexError(f"the first {old} of {len(leaves)} leaves")
    path: list[bytes] = []
    start, end, whole = 0, len(leaves), True
    while old != end:
        middle = start + _left(end - start)
        if old <= middle:
            path.append(root_of(leaves[middle:end]))
            end = middle
        else:
            path.append(root_of(leaves[start:middle]))
            start, whole = middle, False
    return ([] if whole else [root_of(leaves[start:end])]) + path[::-1]


def is_consistent(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Tell whether the proof shows that the tree of `new` leaves extends that of `old`.

    Source: RFC 9162, section 2.1.4.2.
    """
    if old == new:
        return not path and old_root == new_root
    if not 0 < old < new or (not path and old & (old - 1)):
        return False
    nodes = [old_root, *path] if old & (old - 1) == 0 else list(path)
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    before = after = nodes[0]
    for sibling in nodes[1:]:
        if last == 0:
            return False
        if first & 1 or first == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            after = node_hash(after, sibling)
        first, last = first >> 1, last >> 1
    return last == 0 and before == old_root and after == new_root


def _left(size: int) -> int:
    """Return the largest power of two below `size` (at least 2)."""
    return 1 << (size - 1).bit_length() - 1
