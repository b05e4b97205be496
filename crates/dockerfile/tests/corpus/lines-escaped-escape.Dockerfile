FROM alpine
RUN echo one \\
RUN echo two \\\
RUN echo three
ENV a=\\
