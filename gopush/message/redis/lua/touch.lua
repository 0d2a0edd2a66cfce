-- Writes a little, so that one knows whether that works, and what WAIT has to wait for; and keeps the store's id.
-- Arguments: prefix, an id for a store that has none, seconds that an id lives. Gives the id and the server's clock; where
-- that name is strange, an error.
local name = prefix .. 'store'
local id = get(name, 1)
if id == nil then
  return strange_error()
end
id = id or args[2]
call('SET', name, id, 'EX', args[3])
return cmsgpack.pack({id, now})
