FROM alpine
RUN --network=none a
RUN --network=default b
RUN --network=host c
RUN --security=sandbox d
RUN --security=insecure e
