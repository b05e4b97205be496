FROM alpine:3.20
ENV TINI_VERSION v0.19.0
ADD --chmod=755 --checksum=sha256:93dcc18adc78c65a028a84799ecf8ad40c936fdfc5f2a57b1acda5a8117fa82c https://files.example.test/tini/${TINI_VERSION}/tini /tini
ADD https://git.example.test/tools.git#v1.2:scripts /opt/scripts
ADD rootfs.tar.gz /
ENTRYPOINT ["/tini", "--"]
CMD ["/opt/scripts/run.sh", "--default"]
