FROM	alpine	AS	x
ENV	a=b	c=d
COPY	file	/x/
EXPOSE	123
LABEL	a=b
