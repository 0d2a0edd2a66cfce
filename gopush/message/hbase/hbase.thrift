// What the store needs of HBase's Thrift2 service: names and numbers as HBase 2.x has them. Other fields are skipped.

struct Column {
  1: required binary family,
  2: optional binary qualifier
}

struct ColumnValue {
  1: required binary family,
  2: required binary qualifier,
  3: required binary value,
  4: optional i64 timestamp
}

struct Result {
  1: optional binary row,
  2: required list<ColumnValue> columnValues
}

struct Get {
  1: required binary row,
  2: optional list<Column> columns
}

struct Put {
  1: required binary row,
  2: required list<ColumnValue> columnValues,
  5: optional map<binary, binary> attributes
}

union Mutation {
  1: Put put
}

struct RowMutations {
  1: required binary row,
  2: required list<Mutation> mutations
}

struct TableName {
  1: optional binary ns,
  2: required binary qualifier
}

struct ColumnFamily {
  1: required binary name,
  10: optional i32 maxVersions
}

struct TableDescriptor {
  1: required TableName tableName,
  2: optional list<ColumnFamily> columns
}

struct RegionInfo {
  1: required i64 regionId,
  2: required binary tableName,
  3: optional binary startKey,
  4: optional binary endKey
}

struct ServerName {
  1: required string hostName,
  2: optional i32 port
}

struct RegionLocation {
  1: required ServerName serverName,
  2: required RegionInfo regionInfo
}

exception IOError {
  1: optional string message
}

service HBase {
  list<Result> getMultiple(1: required binary table, 2: required list<Get> gets) throws (1: IOError io)

  bool checkAndMutate(
    1: required binary table,
    2: required binary row,
    3: required binary family,
    4: required binary qualifier,
    5: required i32 compareOperator,
    6: binary value,
    7: required RowMutations mutations
  ) throws (1: IOError io)

  list<RegionLocation> getAllRegionLocations(1: required binary table) throws (1: IOError io)

  TableDescriptor getTableDescriptor(1: required TableName table) throws (1: IOError io)

  bool tableExists(1: TableName table) throws (1: IOError io)

  void createTable(1: required TableDescriptor table, 2: optional list<binary> splitKeys) throws (1: IOError io)
}
