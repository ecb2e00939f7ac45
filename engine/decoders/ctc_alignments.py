"""The tokens of a search's hypotheses with their times: a tree of back-pointers, in which what hypotheses share is kept once.

A node is a token that was said at a time after what its parent says. Node 0 is where the utterance begins. Nodes are counted
by those that point at them, and free ones form a list, so the tree's size is that of the hypotheses that are alive.
"""

import numpy as np

from .inner import inner

PARENT, TOKEN, HOLDERS, DEPTH = range(4)  # of a node, int32; a free node's parent is the next free one
FREE, FRESH, USED = range(
    3
)  # int64: the first free node, -1 where none is; the first that never was used; how many are in use


@inner
def add(tree, places, peaks, pool, parent, token, at, probability):
    """A new node, which nobody holds yet; it holds its parent."""
    node = pool[FREE]
    if node >= 0:
        pool[FREE] = tree[node, PARENT]
    else:
        node = pool[FRESH]
        pool[FRESH] += 1
    pool[USED] += 1
    tree[node, PARENT], tree[node, TOKEN] = parent, token
    tree[node, HOLDERS], tree[node, DEPTH] = 0, tree[parent, DEPTH] + 1
    places[node, 0], places[node, 1], peaks[node] = at, at, probability
    hold(tree, parent)
    return node


@inner
def hold(tree, node):
    """One more points at a node; -1 is none."""
    if node > 0:
        tree[node, HOLDERS] += 1


@inner
def release(tree, pool, node):
    """One less points at a node; what nobody points at any more is free."""
    while node > 0:
        tree[node, HOLDERS] -= 1
        if tree[node, HOLDERS] > 0:
            break
        parent = np.int64(tree[node, PARENT])
        _free(tree, pool, node)
        node = parent


@inner
def _free(tree, pool, node):
    tree[node, PARENT], tree[node, HOLDERS] = pool[FREE], 0
    pool[FREE] = node
    pool[USED] -= 1


@inner
def clear(pool):
    """An empty tree."""
    pool[FREE], pool[FRESH], pool[USED] = -1, 1, 0


@inner
def cut(tree, pool, depth):
    """The first tokens of all hypotheses leave: nodes down to this depth are free, those below hang on node 0."""
    for node in range(1, pool[FRESH]):
        if tree[node, HOLDERS] > 0:
            if tree[node, DEPTH] <= depth:
                _free(tree, pool, node)
            else:
                tree[node, DEPTH] -= depth
                if tree[node, DEPTH] == 1:
                    tree[node, PARENT] = 0


@inner
def collect(tree, places, peaks, node, out_tokens, out_places, out_peaks):
    """Writes the tokens that lead to a node; returns how many they are."""
    count = np.int64(tree[node, DEPTH])
    for i in range(count - 1, -1, -1):
        out_tokens[i], out_peaks[i] = tree[node, TOKEN], peaks[node]
        out_places[i, 0], out_places[i, 1] = places[node, 0], places[node, 1]
        node = np.int64(tree[node, PARENT])
    return count


@inner
def common_depth(tree, a, b, depth):
    """How many tokens two nodes have in common from the beginning, at most `depth`."""
    depth = min(depth, min(np.int64(tree[a, DEPTH]), np.int64(tree[b, DEPTH])))
    while tree[a, DEPTH] > depth:
        a = np.int64(tree[a, PARENT])
    while tree[b, DEPTH] > depth:
        b = np.int64(tree[b, PARENT])
    common = depth
    while a != b:
        if tree[a, TOKEN] != tree[b, TOKEN]:
            common = np.int64(tree[a, DEPTH]) - 1
        a, b = np.int64(tree[a, PARENT]), np.int64(tree[b, PARENT])
    return common
