ARG IMAGE=alpine TAG=3
FROM ${IMAGE}:${TAG} AS one
ARG v=val port="80 81/udp" dir=/srv user=me
ENV e=$v
LABEL l=$v "k$v"="x$v"
EXPOSE $port 90$v1
USER $user:$user
VOLUME $dir/data
WORKDIR $dir/$v
STOPSIGNAL SIG${sig:-USR1}
COPY --chown=$user --chmod=${mode:-640} file $dir/
RUN --mount=type=cache,id=c-$v,target=$dir/cache --mount=type=bind,source=$src,target=/b echo $v
CMD echo $v
ENTRYPOINT ["echo", "$v"]
HEALTHCHECK CMD echo $v
ONBUILD ENV o=$v
SHELL ["$v"]
