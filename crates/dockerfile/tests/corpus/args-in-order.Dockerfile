FROM alpine
ARG a=1 b=$a c=${b}x d
ARG d=late e=$d
ENV a=env
RUN echo $a $b $c $d $e
ARG a=arg
RUN echo $a
ENV d=$d
#! --build-arg c=given
