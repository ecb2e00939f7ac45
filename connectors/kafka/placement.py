"""Which member owns each partition, and which ones stand by for it: the same for the same members, in any order.

What counts, in this order. Of each topic no subscriber owns two more than another. Over all topics the owners' loads are as
even as that allows. Partitions stay with their owners; those that cannot go to members that follow their changelog.
Standbys are other members than the owner, so chosen that every member has evenly much to own and to follow, and that, when
an owner fails, each of its partitions can go to a member that follows it; a former owner, whose state is warm, comes first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .spreading import spread

Partition = tuple[str, int]
_WARM = 64  # more than a lag costs, see `_lag_cost`


@dataclass(frozen=True, slots=True)
class Member:
    """id: unique; members are taken in its order. topics: subscribed to. owned: and since which round it says so.

    following: partitions that it stands by for, and by how many records it lags behind each one's changelog.
    """

    id: str
    topics: frozenset[str]
    owned: frozenset[Partition] = frozenset()
    round: int = 0
    following: Mapping[Partition, int] = field(default_factory=dict)


def settled_claims(members: Sequence[Member]) -> dict[Partition, int]:
    """The member, by its place, that owned each partition last: of several that say so, the one of the latest round."""
    found: dict[Partition, int] = {}
    for place, member in enumerate(members):
        for partition in member.owned:
            if partition not in found or members[found[partition]].round < member.round:
                found[partition] = place
    return found


def place_owners(partitions: Mapping[str, Sequence[int]], members: Sequence[Member]) -> dict[Partition, int]:
    """The place in `members` of the owner of each partition whose topic has a subscriber."""
    claims, owners = settled_claims(members), {}
    topics = [t for t in sorted(partitions) if partitions[t] and any(t in m.topics for m in members)]
    owned = {t: _by_member(t, partitions[t], members, claims) for t in topics}
    for topic, quotas in zip(topics, _quotas(topics, partitions, members, owned), strict=True):
        owners |= _share(topic, partitions[topic], members, owned[topic], quotas)
    return owners


def place_standbys(
    owners: Mapping[Partition, int], members: Sequence[Member], copies: int
) -> dict[Partition, list[int]]:
    """The places of `copies` members that stand by for each partition, of fewer where there are not as many others."""
    partitions = sorted(owners)
    if not copies or not partitions:
        return {p: [] for p in partitions}
    row = {p: i for i, p in enumerate(partitions)}
    warm = np.zeros((len(partitions), len(members)), bool)
    for place, member in enumerate(members):
        warm[[row[p] for p in {*member.owned, *member.following} if p in row], place] = True
    subscribed = {t: np.array([t in m.topics for m in members]) for t in {t for t, _ in partitions}}
    allowed = np.stack([subscribed[t] for t, _ in partitions])
    allowed[np.arange(len(partitions)), [owners[p] for p in partitions]] = False
    groups, beside = _owned_beside(partitions, owners, len(members))
    demand, load = np.minimum(copies, allowed.sum(1)), np.bincount([*owners.values()], minlength=len(members))
    dealt = spread(warm, allowed, (~warm).astype(np.int64), demand, load, groups, beside)
    return {p: np.nonzero(dealt[i])[0].tolist() for p, i in row.items()}


def _owned_beside(
    partitions: Sequence[Partition], owners: Mapping[Partition, int], members: int
) -> tuple[np.ndarray, np.ndarray]:
    """A group for each owner of each topic, and how many of that topic's partitions each member owns.

    When an owner fails, what it had is shared out so that members own evenly many; so that is how its standbys are chosen.
    """
    topics = {t: i for i, t in enumerate(sorted({t for t, _ in partitions}))}
    owned = np.zeros((len(topics), members), np.int64)
    for topic, p in partitions:
        owned[topics[topic], owners[topic, p]] += 1
    groups = np.array([topics[t] * members + owners[t, p] for t, p in partitions])
    return groups, owned.repeat(members, 0)


# -------------------------------------------------------------------------------------------------- owners


def _by_member(
    topic: str, partitions: Sequence[int], members: Sequence[Member], claims: Mapping[Partition, int]
) -> list[list[int]]:
    """The topic's partitions that each member owned and is still subscribed to, in order."""
    owned: list[list[int]] = [[] for _ in members]
    for p in sorted(partitions):
        place = claims.get((topic, p))
        if place is not None and topic in members[place].topics:
            owned[place].append(p)
    return owned


def _quotas(
    topics: Sequence[str],
    partitions: Mapping[str, Sequence[int]],
    members: Sequence[Member],
    owned: Mapping[str, list[list[int]]],
) -> np.ndarray:
    """How many partitions of each topic each member gets, int (topics, members): the even share, and to some one more."""
    allowed = np.array([[t in m.topics for m in members] for t in topics]).reshape(len(topics), len(members))
    counts = np.array([len(partitions[t]) for t in topics], np.int64)
    share, extra = np.divmod(counts, np.maximum(allowed.sum(1), 1))
    owns = np.array([[len(of) for of in owned[t]] for t in topics], np.int64).reshape(allowed.shape)
    follows = np.array([_closest_standby(t, partitions[t], members, owned[t]) for t in topics]).reshape(allowed.shape)
    stays, warm = owns > share[:, None], owns + follows > share[:, None]
    cost = np.where(stays, 0, (2 + int(extra.sum())) - warm)  # a move more is worse than any number of cold ones
    even = allowed * share[:, None]
    return even + spread(stays, allowed, cost, extra, even.sum(0))


def _closest_standby(
    topic: str, partitions: Sequence[int], members: Sequence[Member], owned: Sequence[Sequence[int]]
) -> list[int]:
    """Of how many of the topic's partitions without an owner each member is the closest standby."""
    closest = [0] * len(members)
    for p in set(partitions).difference(*owned):
        lags = [(m.following[topic, p], i) for i, m in enumerate(members) if (topic, p) in m.following]
        if lags:
            closest[min(lags)[1]] += 1
    return closest


def _share(
    topic: str,
    partitions: Sequence[int],
    members: Sequence[Member],
    owned: Sequence[list[int]],
    quotas: np.ndarray,
) -> dict[Partition, int]:
    """The topic's partitions to the members, as many as their quotas say."""
    roomy = [m for m, of, quota in zip(members, owned, quotas, strict=True) if len(of) < quota]
    kept = [_kept(topic, of, int(quota), roomy) for of, quota in zip(owned, quotas, strict=True)]
    free = sorted(set(partitions).difference(*kept))
    owners = {(topic, p): place for place, of in enumerate(kept) for p in of}
    room = quotas - np.array([len(of) for of in kept])
    cold = _WARM * (len(free) + 1)
    cost = np.array([[_lag_cost(m.following.get((topic, p)), cold) for m in members] for p in free], np.int64)
    if free:  # members with as much room as they get: what they have is counted from where they will be full
        none, any_ = np.zeros(cost.shape, bool), np.broadcast_to(room > 0, cost.shape)
        dealt = spread(none, any_, cost, np.ones(len(free), np.int64), -room)
        owners |= {(topic, p): int(dealt[i].argmax()) for i, p in enumerate(free)}
    return owners


def _kept(topic: str, owned: list[int], quota: int, roomy: Sequence[Member]) -> list[int]:
    """What a member keeps of what it owns: it gives up what another follows most closely, then the last ones."""
    if len(owned) <= quota:
        return owned

    def loss(p: int) -> tuple[int, int]:
        return -min((_lag_cost(m.following.get((topic, p)), _WARM) for m in roomy), default=_WARM), p

    return sorted(owned, key=loss)[:quota]


def _lag_cost(lag: int | None, cold: int) -> int:
    """The binary magnitude of a standby's lag; `cold` of a member that does not follow."""
    return cold if lag is None else min(max(lag, 0).bit_length(), _WARM - 1)
