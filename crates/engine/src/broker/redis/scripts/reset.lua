-- Begins a new epoch, unless another host has done so.
-- ARGV: 7 the epoch whose offsets were seen to go back

if redis.call('HGET', KEYS[1], 'epoch') == ARGV[7] then
    begin(current_run())
    keep_position()
    return 1
end
return 0
