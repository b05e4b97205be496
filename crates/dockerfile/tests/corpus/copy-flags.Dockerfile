FROM alpine AS s
FROM alpine
COPY --chown=1:2 --chmod=0750 --link file dir /x/
COPY --chmod=u=rwX,go=rX dir /sym
COPY --parents dir/./inner dir/inner /p/
COPY --exclude=*.md --exclude=!keep.md dir /e
COPY --from=s --parents /a/./b/*.c /from/
COPY --from=scratch . /nothing
COPY --chown=name:group dir /named
COPY --link --from=s /x /y
ADD --exclude=inner dir /z
