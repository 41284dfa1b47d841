# An app with the hook, from the top of the sources (demo/ stands for your app):
#   docker build -t app -f conf/deploy/app.Dockerfile .
FROM python:3.12 AS hook
COPY hook /hook
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /hook

FROM python:3.12-slim
COPY --from=hook /wheels /wheels
RUN pip install --no-cache-dir fastapi "uvicorn[standard]" aiosqlite /wheels/tailrace-*.whl
COPY demo/app.py /app/app.py
WORKDIR /app
# The gateway's number, so that its control socket lets the app in.
USER 10001:10001
CMD ["uvicorn", "app:app", "--host", "0.0.0.0", "--port", "8000", "--forwarded-allow-ips", "*"]
