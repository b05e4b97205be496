ARG CUDA_VERSION=12.4.1
FROM nvidia/cuda:${CUDA_VERSION}-cudnn-devel-ubuntu22.04 AS dev
LABEL maintainer="ml@example.test"
ENV PATH=/opt/conda/bin:$PATH \
    LD_LIBRARY_PATH=/usr/local/cuda/lib64:${LD_LIBRARY_PATH:-/usr/lib}
RUN curl -fsSL -o ~/miniconda.sh https://repo.example.test/miniconda.sh && bash ~/miniconda.sh -b -p /opt/conda
COPY environment.yml /tmp/
RUN conda env update -n base -f /tmp/environment.yml && conda clean -ya
WORKDIR /workspace
FROM dev AS notebook
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--allow-root"]
#! --build-arg CUDA_VERSION=11.8.0
