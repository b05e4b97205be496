FROM alpine   
RUN echo one \   
  two	
ENV a=b  	
LABEL x=y \	
   z=w
