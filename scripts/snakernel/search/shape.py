"""Which step is what: all that is known of a search before anything ran, and so the shape of the DAG."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Steps are numbered flat, round by round. A round has ``islands`` x ``width`` lanes, each ``depth`` steps deep.

    Within a round come first the first steps of all lanes, then their second ones, ...: what may be asked at the same
    time has neighbouring numbers, and a longer run never renumbers a shorter one.
    """

    islands: int = 1
    """Searches beside each other."""
    width: int = 1
    """Lanes of each island: steps that read the same state."""
    depth: int = 1
    """Steps of a lane in one round, each of which starts from the one before it."""
    migrate_every: int = 1
    """Rounds after which the islands exchange their best."""

    @property
    def lanes(self) -> int:
        """Steps that can be asked at the same time."""
        return self.islands * self.width

    def round(self, step: int) -> int:
        """The round of a step, from 0."""
        return (step - 1) // (self.lanes * self.depth)

    def lane(self, step: int) -> int:
        """The lane of a step, from 0; lanes of one island are neighbours."""
        return (step - 1) % self.lanes

    def island(self, step: int) -> int:
        """The island of a step, from 0."""
        return self.lane(step) // self.width

    def level(self, step: int) -> int:
        """How deep in its lane a step is, from 0."""
        return (step - 1) % (self.lanes * self.depth) // self.lanes

    def opens_round(self, step: int) -> bool:
        """Whether a step is the first of its round."""
        return self.level(step) == 0 and self.lane(step) == 0

    def closes_island(self, step: int) -> bool:
        """Whether a step is the last of its island in its round."""
        return self.level(step) == self.depth - 1 and self.lane(step) % self.width == self.width - 1

    def migrates_after(self, step: int) -> bool:
        """Whether a step ends a round after which the islands exchange their best."""
        ends = step % (self.lanes * self.depth) == 0
        return ends and self.islands > 1 and (self.round(step) + 1) % self.migrate_every == 0

    def reads(self, step: int) -> int:
        """The earlier step whose state ``step`` starts from; 0 is the empty state.

        A lane's first step starts from the end of its island's last round, so that islands do not wait for each other
        but for a migration; its other steps start from the lane's step before.
        """
        if self.level(step) > 0:
            return step - self.lanes
        before = self.round(step) * self.lanes * self.depth
        if before == 0 or self.migrates_after(before):
            return before
        return before - self.lanes + (self.island(step) + 1) * self.width

    def kernels_read(self, step: int) -> range:
        """The steps whose kernels ``step`` may be made of; through theirs, all up to the state that it reads."""
        last = self.reads(step)
        return range(self.reads(last) + 1 if last else 1, last + 1)
