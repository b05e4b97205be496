FROM base-with-env
ENV PATH=/mine:$PATH
ENV LANG=C NEW=1
RUN echo $OLD
ENV OLD=
