FROM gradle:8-jdk21 AS cache
ENV GRADLE_USER_HOME=/cache
COPY build.gradle.kts settings.gradle.kts gradle.properties /home/gradle/app/
WORKDIR /home/gradle/app
RUN gradle clean build -i --stacktrace

FROM gradle:8-jdk21 AS build
COPY --from=cache /cache /home/gradle/.gradle
COPY . /usr/src/app/
WORKDIR /usr/src/app
RUN gradle buildFatJar --no-daemon

FROM amazoncorretto:22 AS runtime
EXPOSE 8080
RUN mkdir /app
COPY --from=build /usr/src/app/build/libs/*.jar /app/server.jar
ENTRYPOINT ["java","-jar","/app/server.jar"]
