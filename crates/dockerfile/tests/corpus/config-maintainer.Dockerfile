FROM alpine AS a
MAINTAINER One <one@example.test>
FROM a
MAINTAINER Two
