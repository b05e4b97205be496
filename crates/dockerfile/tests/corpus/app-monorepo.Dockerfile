# syntax=docker/dockerfile:1
FROM node:22 AS workspace
WORKDIR /repo
COPY --parents packages/*/package.json package.json pnpm-lock.yaml ./
RUN --mount=type=cache,id=pnpm,target=/pnpm/store pnpm install --frozen-lockfile
COPY . .

FROM workspace AS build-api
RUN pnpm --filter api build
FROM workspace AS build-web
RUN pnpm --filter web build
FROM workspace AS build-docs
RUN pnpm --filter docs build

FROM node:22-slim AS api
COPY --from=build-api /repo/packages/api/dist /app
CMD ["node", "/app/main.js"]

FROM nginx:alpine AS web
COPY --from=build-web /repo/packages/web/dist /usr/share/nginx/html

FROM nginx:alpine AS docs
COPY --from=build-docs /repo/packages/docs/dist /usr/share/nginx/html

FROM workspace AS test
RUN pnpm test
#! --target web
