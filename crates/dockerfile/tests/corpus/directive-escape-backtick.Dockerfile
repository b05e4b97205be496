# escape=`
FROM windows-like
ENV dir=C:\tools file="C:\a b"
COPY file c:\dir\
RUN echo one `
  two \
RUN echo `$HOME
COPY <<EOF /x
backslash: \$dir and $dir
EOF
