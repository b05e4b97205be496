FROM alpine
RUN
RUN [""]
RUN    
