FROM ubuntu:14.04
MAINTAINER Jo Doe "jo@example.test"
ENV DEBIAN_FRONTEND noninteractive
ENV PATH /usr/lib/x:$PATH
RUN apt-get update && apt-get install -y \
  apache2 \

  curl
ADD . /var/www
ADD ./apache.conf /etc/apache2/sites-enabled/000-default.conf
WORKDIR var/www
EXPOSE 80:80
EXPOSE 443/TCP
CMD /usr/sbin/apache2ctl -D FOREGROUND
