"""What `twistd` offers once gopush is installed: `comet`, `message`, `gopush-web`, and `gopush` for all in one."""

from twisted.application.service import ServiceMaker

comet = ServiceMaker("gopush comet", "gopush.comet.node", "A gopush comet: holds the subscribers.", "comet")
message = ServiceMaker("gopush message", "gopush.message.node", "A gopush message node: keeps the messages.", "message")
web = ServiceMaker(
    "gopush web",
    "gopush.web.node",
    "A gopush web node: HTTP (`web` is Twisted's own).",
    "gopush-web",
)
embedded = ServiceMaker(
    "gopush", "gopush.embedded.node", "All of gopush in one process, alone or in a cluster of equals.", "gopush"
)
