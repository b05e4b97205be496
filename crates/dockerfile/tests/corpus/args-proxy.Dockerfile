FROM alpine
RUN curl example.test
ARG https_proxy
RUN curl example.test
#! --build-arg http_proxy=http://p.test --build-arg https_proxy=http://s.test
