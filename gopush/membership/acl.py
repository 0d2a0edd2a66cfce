"""Who may alter what is registered in ZooKeeper: with `[zookeeper] user` set, only that user."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from kazoo.exceptions import NoAuthError, NoNodeError
from kazoo.security import CREATOR_ALL_ACL, READ_ACL_UNSAFE, Permissions, make_digest_acl_credential
from twisted.logger import Logger

from gopush.rpc.settings import ZooKeeperSettings

log = Logger()


class Ownership:
    """Has all that is registered belong to the user, also what was there before there was one."""

    def __init__(self, settings: ZooKeeperSettings) -> None:
        self.acl: list[Any] | None = None
        """Who may do what with the znodes made here; None: everybody everything."""
        self._readable = settings.readable
        if settings.user:
            self.acl = [*CREATOR_ALL_ACL, *(READ_ACL_UNSAFE if settings.readable else ())]
            self._us = make_digest_acl_credential(settings.user, settings.secret)
        self._ours: set[str] = set()
        self._foreign: set[str] = set()

    def forget(self) -> None:
        """Look at all znodes anew."""
        self._ours.clear()

    def take(self, client: Any, wait: Callable[[Any], Any], paths: Iterable[str]) -> set[str]:
        """Take these znodes over. Gives those that belong to somebody else: what they say is not to be believed."""
        if self.acl is None:
            return set()
        paths = set(paths)
        self._ours &= paths
        self._foreign &= paths
        asked = [(path, client.get_acls_async(path)) for path in paths - self._ours]
        open_ones = [path for path, result in asked if not self._is_ours(path, _answer(wait, result))]
        taking = [(path, client.set_acls_async(path, self.acl)) for path in open_ones]
        foreign = {path for path, result in taking if _answer(wait, result) is NoAuthError}
        for path in sorted(foreign - self._foreign):
            log.warn("{path} is skipped: it belongs to another [zookeeper] user", path=path)
        self._foreign = foreign
        self._ours = paths - foreign
        return foreign

    def _is_ours(self, path: str, answer: Any) -> bool:
        if answer is NoNodeError:
            return True  # it has gone
        return answer is not NoAuthError and all(self._is_good(acl) for acl in answer[0])

    def _is_good(self, acl: Any) -> bool:
        reads = acl.perms == Permissions.READ and self._readable
        return reads or (acl.id.scheme, acl.id.id) == ("digest", self._us)


def _answer(wait: Callable[[Any], Any], result: Any) -> Any:
    """The result, or the kind of error that says how it stands."""
    try:
        return wait(result)
    except (NoAuthError, NoNodeError) as wrong:
        return type(wrong)
