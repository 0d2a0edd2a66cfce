-- Deletes a key's messages; head and ids stay. Arguments: prefix, seconds the head lives on, key.
local head_life, key = args[2], args[3]
call('DEL', messages_name(key))
local head = call('GET', head_name(key))
if head then
  call('SET', head_name(key), string.sub(head, 1, 16) .. struct.pack('>dd', math.huge, 0), 'EX', head_life)
end
return 1
