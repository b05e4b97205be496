FROM node:20 AS assets
WORKDIR /ui
COPY ui/ .
RUN yarn install --frozen-lockfile && yarn build

FROM nginx:1.27-alpine
COPY --link --from=assets /ui/dist /usr/share/nginx/html
COPY --link nginx/*.conf /etc/nginx/conf.d/
COPY --link --chmod=0755 <<'EOF' /docker-entrypoint.d/40-config.sh
#!/bin/sh
set -eu
envsubst '$API_URL' < /usr/share/nginx/html/config.tmpl > /usr/share/nginx/html/config.js
EOF
EXPOSE 80 443/tcp
HEALTHCHECK --interval=10s --retries=3 CMD ["curl", "-fsS", "http://localhost/"]
