FROM alpine
RUN make zero
FROM busybox
RUN make one
FROM scratch
COPY --from=0 /zero /
COPY --from=1 /one /
COPY --from=alpine:3.19 /etc/os-release /alpine
COPY --from=registry.example.test:5000/team/tool@sha256:93dcc18adc78c65a028a84799ecf8ad40c936fdfc5f2a57b1acda5a8117fa82c /tool /
RUN --mount=from=busybox,target=/bb /bb/bin/true
