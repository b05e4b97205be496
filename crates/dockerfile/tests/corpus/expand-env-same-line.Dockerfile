FROM alpine
ENV abc=hello
ENV abc=bye def=$abc
ENV ghi=$abc
LABEL a=$abc b=$def c=$ghi
