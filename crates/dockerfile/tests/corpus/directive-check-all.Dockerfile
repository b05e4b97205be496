# check=skip=all
FROM alpine AS Base
MAINTAINER x
ENV token s
CMD echo one
CMD echo two
