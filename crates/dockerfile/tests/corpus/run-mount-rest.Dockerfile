FROM alpine
RUN --mount=type=tmpfs,target=/t --mount=type=tmpfs,target=/u,size=64m x
RUN --mount=type=secret,id=one x
RUN --mount=type=secret,id=two,target=/etc/two,mode=0440,uid=1,gid=2,required=true x
RUN --mount=type=secret,id=three,env=THREE x
RUN --mount=type=secret,id=four,env=FOUR,target=/four x
RUN --mount=type=secret,src=/path/five x
RUN --mount=type=secret,target=/six x
RUN --mount=type=ssh x
RUN --mount=type=ssh,id=host,target=/sock,mode=0666,uid=1,gid=1,required x
RUN --mount=type=ssh --mount=type=ssh,id=b x
