"""What `twistd` offers once gopush is installed: `comet`, `message`, `gopush-web`, and `gopush` for all in one."""

from twisted.application.service import ServiceMaker

comet = ServiceMaker("gopush comet", "gopush.comet.tap", "A gopush comet: holds the subscribers.", "comet")
message = ServiceMaker("gopush message", "gopush.message.tap", "A gopush message node: keeps the messages.", "message")
web = ServiceMaker("gopush web", "gopush.web.tap", "A gopush web node: look-ups and pushes over HTTP.", "gopush-web")
embedded = ServiceMaker("gopush", "gopush.embedded.tap", "All of gopush in one process, on SQLite.", "gopush")
