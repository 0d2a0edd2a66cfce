"""The store in Apache HBase, through its Thrift2 servers."""
