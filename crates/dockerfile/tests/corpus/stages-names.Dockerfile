FROM alpine AS Build
RUN one
FROM build AS second-stage.x_1
RUN two
FROM alpine AS alpine
RUN in alpine
FROM alpine
COPY --from=BUILD /a /a
COPY --from=Second-Stage.x_1 /b /b
COPY --from=0 /c /c
