FROM scratch
COPY file /
FROM scratch AS empty
FROM scratch
COPY --from=empty / /
COPY --from=0 /file /file
ENV a=b
RUN ["/file"]
