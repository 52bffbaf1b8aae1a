"""Topological order: every node after those it reads from, otherwise in the order given."""

from __future__ import annotations

import heapq

from sigconv.errors import ModelError
from sigconv.graph.ir import Graph, Node


def run(graph: Graph) -> Graph:
    """The graph with its nodes sorted (stable); the same graph where they already are. ModelError names a cycle."""
    nodes = sort(graph.nodes)
    return graph if nodes == graph.nodes else graph.replace(nodes=nodes)


def sort(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """The nodes in topological order, the same tuple where they already are; values no node writes are given."""
    writer = {out: i for i, node in enumerate(nodes) for out in node.outputs if out}
    needs = [{writer[name] for name in node.inputs if name in writer} for node in nodes]
    if all(j < i for i, need in enumerate(needs) for j in need):
        return nodes
    readers: list[list[int]] = [[] for _ in nodes]
    for i, need in enumerate(needs):
        for j in need:
            readers[j].append(i)
    waiting = [len(need) for need in needs]
    ready = [i for i, n in enumerate(waiting) if n == 0]
    order: list[int] = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for j in readers[i]:
            waiting[j] -= 1
            if waiting[j] == 0:
                heapq.heappush(ready, j)
    if len(order) < len(nodes):
        raise ModelError("the graph has a cycle: " + " -> ".join(nodes[i].label for i in _cycle(needs, waiting)))
    return tuple(nodes[i] for i in order)


def _cycle(needs: list[set[int]], waiting: list[int]) -> list[int]:
    """One cycle among the nodes that never became ready, first node repeated at the end."""
    i = next(i for i, n in enumerate(waiting) if n)
    path: list[int] = []
    seen: dict[int, int] = {}
    while i not in seen:
        seen[i] = len(path)
        path.append(i)
        i = min(j for j in needs[i] if waiting[j])
    loop = path[seen[i] :]
    return [i, *loop[:0:-1], i] if len(loop) > 1 else [i, i]
