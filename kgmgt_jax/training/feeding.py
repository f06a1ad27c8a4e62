"""Batches on their way to the devices, a few ahead of the step that consumes them."""

import collections
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any, Protocol, TypeVar

__all__ = ["DeviceFeed", "Loader"]

T = TypeVar("T")
_AHEAD = 2  # batches


class Loader(Protocol):
    """What a feed draws from: an iterator whose position can be saved, as Grain's are."""

    def __next__(self) -> Any: ...
    def get_state(self) -> Any: ...
    def set_state(self, state: Any) -> None: ...
    def close(self) -> None: ...


class DeviceFeed(Iterator[T]):
    """Hands out batches that were put on the devices while earlier steps ran.

    Its position is that of the last batch handed out, not of the last one fetched: a run that is
    resumed from it sees each batch once.

    Args:
        loader: Where batches come from.
        put: Starts the transfer of a batch and returns what is handed out.
    """

    def __init__(self, loader: Loader, put: Callable[[Any], T]) -> None:
        self._loader, self._put = loader, put
        self._ahead: collections.deque[tuple[T, Any]] = collections.deque()
        self._state, self._exhausted = loader.get_state(), False

    def __next__(self) -> T:
        while len(self._ahead) < _AHEAD and not self._exhausted:
            try:
                batch = self._put(next(self._loader))
            except StopIteration:
                self._exhausted = True
            else:
                self._ahead.append((batch, self._loader.get_state()))
        if not self._ahead:
            raise StopIteration
        batch, self._state = self._ahead.popleft()
        return batch

    def get_state(self) -> Any:
        """The position behind the last batch handed out."""
        return self._state

    def set_state(self, state: Any) -> None:
        """Goes to a position, forgetting what was fetched ahead.

        Raises:
            ValueError: if it is not one of this version of Grain.
        """
        try:
            self._loader.set_state(state)
        except Exception as error:  # Grain's own iterators raise whatever they stumble over
            raise ValueError(
                f"expected a position in the data as Grain {version('grain')} has it, got another "
                f"({error!r}); go on with the version of Grain that the run had before, or begin a "
                "new workdir with train.start_from"
            ) from error
        self._ahead.clear()
        self._state, self._exhausted = state, False

    def close(self) -> None:
        """Ends the loader's threads and workers."""
        self._ahead.clear()
        self._loader.close()
