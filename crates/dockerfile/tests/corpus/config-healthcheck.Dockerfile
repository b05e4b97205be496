FROM alpine AS none
HEALTHCHECK NONE
FROM none AS shell
HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=2h --start-interval=1s --retries=0 CMD curl -f "http://$HOST/"
FROM shell
HEALTHCHECK cmd ["a", "b"]
HEALTHCHECK --retries=7 CMD last
