FROM python:3.12 AS base
WORKDIR /code
COPY requirements ./requirements
RUN pip install -r requirements/base.txt
FROM base AS lint
RUN pip install ruff
COPY . .
RUN ruff check . > /lint.txt
FROM base AS test
RUN pip install -r requirements/test.txt
COPY . .
RUN pytest --junitxml=/report.xml
FROM scratch AS reports
COPY --from=lint /lint.txt .
COPY --from=test /report.xml .
FROM base AS final
COPY . .
CMD ["python", "-m", "app"]
