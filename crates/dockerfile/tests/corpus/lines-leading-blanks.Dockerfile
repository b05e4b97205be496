   FROM alpine
	 RUN echo a \
      b
		ENV a=b
