FROM alpine
COPY --chown="1:2" --chmod='0640' file /a
COPY --chown=\1:2 file /b
COPY --chown=1:2 -- --file /d
RUN --network=none -- echo --network=host
COPY --link=true --parents=false file /e
COPY --link=false file /f
