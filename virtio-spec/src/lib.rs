//! The virtio-rdma device interface shared by frontend and backend.
