FROM alpine
RUN ["echo", "a b", "\u00e9\t\"q\""]
RUN [ "echo" , "$HOME" ]
RUN ["echo", 'single']
RUN ["echo"] trailing
RUN [ -d /x ] && echo shell
RUN ["a",
CMD []
ENTRYPOINT []
VOLUME ["/a b", "/c"]
COPY ["file", "dir/", "/with blank/"]
SHELL ["/bin/ash", "-c"]
HEALTHCHECK CMD ["true"]
