# docker build -t tlcache .                      CPU and CUDA (about 7 GB): docker run --rm --gpus all ...
# docker run --rm -v "$PWD:/work" tlcache study --data photos/
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY tlcache tlcache
COPY exporters exporters
COPY docs docs
RUN pip install --no-cache-dir --constraint constraints.txt '.[timm,parquet]'
WORKDIR /work
ENV TLCACHE_CACHE=/work/.tlcache TORCH_HOME=/work/.tlcache/torch HF_HOME=/work/.tlcache/huggingface
ENTRYPOINT ["tlcache"]
CMD ["--help"]
