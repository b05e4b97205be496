FROM alpine
VOLUME /a /b/ rel
VOLUME ["/c","/d e"]
VOLUME /a
